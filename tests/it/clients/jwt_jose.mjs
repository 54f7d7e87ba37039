// What jose, the JavaScript library, makes of tokens and keys. Ends with an error at the first surprise.
//
// MSSM_ADDR and MSSM_TOKEN say where the server is; NODE_EXTRA_CA_CERTS names its certificate. The
// keys `main-ALG` and the roles `app-ALG` are there; their tokens are for the audience `shop`.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// A package beside this script would be found by itself; this one lies where tests put it.
const found = createRequire(`${process.env.JOSE}/`).resolve("jose");
const { createRemoteJWKSet, errors, jwtVerify } = await import(pathToFileURL(found));

const address = process.env.MSSM_ADDR;
const issuer = `${address}/v1/jwt`;
const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`));

async function ask(method, path, body) {
  const answer = await fetch(`${address}/v1/${path}`, {
    method,
    headers: { "X-Vault-Token": process.env.MSSM_TOKEN },
    body: body && JSON.stringify(body),
  });
  assert.ok(answer.ok, `${path}: ${answer.status}`);
  return answer.json();
}

const discovery = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
assert.equal(discovery.issuer, issuer);
assert.equal(discovery.jwks_uri, `${issuer}/.well-known/jwks.json`);

for (const algorithm of ["EdDSA", "ES256", "ES384", "RS256", "PS256"]) {
  const role = `app-${algorithm.toLowerCase()}`;
  const { token } = (await ask("POST", `jwt/sign/${role}`, {})).data;
  const wanted = { issuer, audience: "shop", algorithms: [algorithm], typ: "JWT" };
  const { payload, protectedHeader } = await jwtVerify(token, keys, wanted);
  assert.equal(payload.sub, "root");
  assert.equal(protectedHeader.alg, algorithm);
  await assert.rejects(jwtVerify(token, keys, { ...wanted, audience: "else" }), errors.JWTClaimValidationFailed);
  await assert.rejects(jwtVerify(token, keys, { ...wanted, algorithms: ["HS256"] }), errors.JOSEAlgNotAllowed);
  const parts = token.split(".");
  const forged = [parts[0], parts[1], "A".repeat(parts[2].length)].join(".");
  await assert.rejects(jwtVerify(forged, keys, wanted), errors.JWSSignatureVerificationFailed);
}

// An access token, as RFC 9068 has it.
await fetch(`${address}/v1/jwt/roles/access`, {
  method: "POST",
  headers: { "X-Vault-Token": process.env.MSSM_TOKEN },
  body: JSON.stringify({
    key: "main-es256", token_type: "at+jwt", audience: "api", client_id: "shop",
    subject: "{{token.accessor}}", claims: { scope: "read" },
  }),
});
const { token } = (await ask("GET", "jwt/token/access")).data;
const { payload } = await jwtVerify(token, keys, { issuer, audience: "api", typ: "at+jwt" });
assert.equal(payload.client_id, "shop");
assert.equal(payload.scope, "read");
console.log("all done");
