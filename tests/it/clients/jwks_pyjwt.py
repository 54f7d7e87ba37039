"""PyJWT's PyJWKClient with a copy of the keys that it keeps as long as it may, and with one that it
keeps for ever. Ends with an exception at the first surprise.

MSSM_ADDR, MSSM_TOKEN and MSSM_CACERT say where the server is and how to ask it, MSSM_CLOCK the file whose
time is the server's: it is PyJWT's as well. The key of the role `app` rotates as
soon as every copy may know the next one.
"""

import http.client
import json
import os
import random
import ssl
from datetime import datetime
from types import SimpleNamespace

import jwt
from jwt import api_jwk, api_jwt, jwk_set_cache, jwks_client

ADDRESS = os.environ["MSSM_ADDR"]
CONTEXT = ssl.create_default_context(cafile=os.environ["MSSM_CACERT"])
JWKS = f"{ADDRESS}/v1/jwt/.well-known/jwks.json"
MAX_AGE = 45
NEVER = 1e9


class Clock:
    file = os.environ["MSSM_CLOCK"]
    now = os.stat(file).st_mtime

    @classmethod
    def advance(cls, secs):
        cls.now += secs
        os.utime(cls.file, (cls.now, cls.now))


class Then(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(Clock.now, tz)


def turn_pyjwts_clock():
    monotonic = SimpleNamespace(monotonic=lambda: Clock.now)
    for module in (api_jwk, jwk_set_cache, jwks_client):
        assert module.time.monotonic
        module.time = monotonic
    assert api_jwt.datetime is datetime
    api_jwt.datetime = Then


class Keys(jwt.PyJWKClient):
    """Asks for the keys when its copy is too old, and never because of a `kid` that it does not know."""

    def __init__(self, lifespan):
        super().__init__(JWKS, ssl_context=CONTEXT, lifespan=lifespan, cooldown_duration=NEVER)
        self.asked = 0

    def fetch_data(self):
        self.asked += 1
        return super().fetch_data()

    def verify(self, token):
        key = self.get_signing_key_from_jwt(token)
        jwt.decode(token, key, algorithms=["EdDSA"], audience="shop",
                   options={"require": ["exp", "iat", "nbf", "iss", "aud", "jti"]})


def main():
    turn_pyjwts_clock()
    server = http.client.HTTPSConnection(ADDRESS.removeprefix("https://"), context=CONTEXT)
    begun = Clock.now
    keys, hoard = Keys(MAX_AGE), Keys(NEVER)
    signed_by, live = [], []
    chance = random.Random(11)
    while len(signed_by) <= int(os.environ["ROTATIONS"]):
        server.request("GET", "/v1/jwt/token/app",
                       headers={"X-Vault-Token": os.environ["MSSM_TOKEN"]})
        token = json.loads(server.getresponse().read())["data"]["token"]
        kid = jwt.get_unverified_header(token)["kid"]
        if kid not in signed_by[-1:]:
            assert kid not in signed_by
            signed_by.append(kid)
        live = [(ends, one) for ends, one in live if ends > Clock.now] + [(Clock.now + 29, token)]
        for _, one in live:
            keys.verify(one)
        try:
            hoard.verify(token)
            known = True
        except jwt.PyJWKClientError as error:
            assert kid in str(error), error
            known = False
        assert known == (len(signed_by) <= 2), signed_by
        Clock.advance(chance.uniform(1, 40))
    assert hoard.asked == 1
    assert keys.asked <= (Clock.now - begun) / MAX_AGE + 1, keys.asked
    print("all done")


main()
