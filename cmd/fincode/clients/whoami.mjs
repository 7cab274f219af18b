// Calls FinCode through the proxy with Node's fetch.
//
// FINCODE_PROXY=http://127.0.0.1:8080 FINCODE_PROXY_KEY_FILE=key node whoami.mjs
import { readFile } from "node:fs/promises";

const key = (await readFile(process.env.FINCODE_PROXY_KEY_FILE, "ascii")).trim();
const response = await fetch(`${process.env.FINCODE_PROXY}/whoami`, {
  headers: { Authorization: `Bearer ${key}` },
  signal: AbortSignal.timeout(60_000),
});
if (!response.ok) {
  throw new Error(`${response.status} ${await response.text()}`);
}
console.log(JSON.stringify((await response.json()).data, null, 2));
