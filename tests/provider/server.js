// A second OpenID provider, which we did not write: panva's oidc-provider, certified, with its own pages for people.
// Prints its address when it is up. It enforces PKCE and the exact redirect address it is given.
import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";

const [clientId, clientSecret, redirectUri, port] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: clientId, client_secret: clientSecret, redirect_uris: [redirectUri] }],
  jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), alg: "RS256", use: "sig", kid: "second" }] },
  cookies: { keys: ["a key of the tests alone"] },
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true } },
  findAccount: (_, sub) => ({ accountId: sub, claims: async () => ({ sub, email: `${sub}@mail.example` }) }),
});
for (const event of ["authorization.error", "grant.error", "server_error"]) {
  provider.on(event, (_, error) => console.log(`${event} ${error?.error ?? ""} ${error?.error_description ?? error}`));
}
provider.on("authorization.success", () => console.log("authorization.success"));
provider.on("grant.success", () => console.log("grant.success"));
provider.on("userinfo.success", () => console.log("userinfo"));
provider.listen(Number(port), "127.0.0.1", () => console.log("up"));
