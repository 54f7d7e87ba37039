"""What PyJWT makes of tokens and keys. Ends with an exception at the first surprise.

MSSM_ADDR, MSSM_TOKEN and MSSM_CACERT say where the server is and how to ask it. The keys `main-ALG`
and the roles `app-ALG` are there; their tokens are for the audience `shop`.
"""

import json
import os
import ssl
import urllib.request

import jwt

ALGORITHMS = ("EdDSA", "ES256", "ES384", "RS256", "PS256")
CONTEXT = ssl.create_default_context(cafile=os.environ["MSSM_CACERT"])
JWKS = f"{os.environ['MSSM_ADDR']}/v1/jwt/.well-known/jwks.json"


def ask(method, path, body=None):
    payload = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{os.environ['MSSM_ADDR']}/v1/{path}", payload, method=method,
                                     headers={"X-Vault-Token": os.environ["MSSM_TOKEN"]})
    with urllib.request.urlopen(request, context=CONTEXT) as answer:
        text = answer.read()
    return json.loads(text) if text else {}


def refused(error, act, *arguments, **named):
    try:
        act(*arguments, **named)
    except error:
        return
    raise AssertionError(f"{act.__name__} was not refused")


def main():
    keys = jwt.PyJWKClient(JWKS, ssl_context=CONTEXT, lifespan=300)
    issuer = f"{os.environ['MSSM_ADDR']}/v1/jwt"
    for algorithm in ALGORITHMS:
        token = ask("POST", f"jwt/sign/app-{algorithm.lower()}", {})["data"]["token"]
        key = keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key, algorithms=[algorithm], audience="shop", issuer=issuer,
                            options={"require": ["exp", "iat", "nbf", "iss", "aud", "jti"]})
        assert claims["sub"] == "root", claims
        refused(jwt.InvalidAudienceError, jwt.decode, token, key, algorithms=[algorithm],
                audience="else")
        refused(jwt.InvalidSignatureError, jwt.decode, token[:-8] + "AAAAAAAA", key,
                algorithms=[algorithm], audience="shop")
        others = [other for other in ALGORITHMS if other != algorithm]
        refused(jwt.InvalidTokenError, jwt.decode, token, key, algorithms=others, audience="shop")
    # A list of audiences is understood as one.
    ask("POST", "jwt/roles/several", {"key": "main-eddsa", "audience": ["shop", "store"]})
    token = ask("GET", "jwt/token/several")["data"]["token"]
    key = keys.get_signing_key_from_jwt(token)
    for audience in ("shop", "store"):
        jwt.decode(token, key, algorithms=["EdDSA"], audience=audience)
    # The other way round: what PyJWT signs is no token of this server.
    forged = jwt.encode({"sub": "root"}, "secret" * 8, algorithm="HS256",
                        headers={"kid": jwt.get_unverified_header(token)["kid"]})
    assert ask("POST", "jwt/introspect", {"token": forged}) == {"active": False}
    print("all done")


main()
