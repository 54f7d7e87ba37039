// createRemoteJWKSet of jose, the JavaScript library, with a copy of the keys that it keeps as long as it may,
// and with one that it keeps for ever. Ends with an error at the first surprise.
//
// MSSM_ADDR and MSSM_TOKEN say where the server is, NODE_EXTRA_CA_CERTS names its certificate, MSSM_CLOCK the file
// whose time is the server's: it is jose's as well. The key of the role `app` rotates
// as soon as every copy may know the next one.

import assert from "node:assert/strict";
import { statSync, utimesSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// A package beside this script would be found by itself; this one lies where tests put it.
const found = createRequire(`${process.env.JOSE}/`).resolve("jose");
const { createRemoteJWKSet, customFetch, decodeProtectedHeader, errors, jwtVerify } = await import(pathToFileURL(found));

const address = process.env.MSSM_ADDR;
const jwks = new URL(`${address}/v1/jwt/.well-known/jwks.json`);
const maxAge = 45_000;

let now = statSync(process.env.MSSM_CLOCK).mtimeMs;
const begun = now;
Date.now = () => now;
function advance(ms) {
  now += ms;
  utimesSync(process.env.MSSM_CLOCK, now / 1000, now / 1000);
}

// Asks for the keys when its copy is too old, and never because of a `kid` that it does not know.
function keys(cacheMaxAge) {
  const counted = { asked: 0 };
  const asks = (...request) => (counted.asked++, fetch(...request));
  counted.set = createRemoteJWKSet(jwks, { cacheMaxAge, cooldownDuration: Infinity, [customFetch]: asks });
  counted.verify = (token) =>
    jwtVerify(token, counted.set, { audience: "shop", algorithms: ["EdDSA"], currentDate: new Date(now) });
  return counted;
}

// The same each time.
let seed = 11;
function chance() {
  seed = (seed * 48_271) % 2_147_483_647;
  return seed / 2_147_483_647;
}

const [copy, hoard] = [keys(maxAge), keys(Infinity)];
const signedBy = [];
let live = [];
while (signedBy.length <= Number(process.env.ROTATIONS)) {
  const answer = await fetch(`${address}/v1/jwt/token/app`, { headers: { "X-Vault-Token": process.env.MSSM_TOKEN } });
  const { token } = (await answer.json()).data;
  const { kid } = decodeProtectedHeader(token);
  if (signedBy.at(-1) !== kid) {
    assert.ok(!signedBy.includes(kid));
    signedBy.push(kid);
  }
  live = [...live.filter(({ ends }) => ends > now), { ends: now + 29_000, token }];
  for (const one of live) await copy.verify(one.token);
  if (signedBy.length <= 2) await hoard.verify(token);
  else await assert.rejects(hoard.verify(token), errors.JWKSNoMatchingKey);
  advance(1000 + 39_000 * chance());
}
assert.equal(hoard.asked, 1);
assert.ok(copy.asked <= (now - begun) / maxAge + 1, `${copy.asked}`);
console.log("all done");
