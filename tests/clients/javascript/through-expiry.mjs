// The AWS SDK for JavaScript, with credentials from wherever its environment says, through the end of a session. Prints what it saw as one line of JSON.
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";

const sts = new STSClient();
const whoami = async (client) => (await client.send(new GetCallerIdentityCommand())).Arn;

const arn = await whoami(sts);
const { accessKeyId, secretAccessKey, sessionToken, $source } = await sts.config.credentials();
const held = new STSClient({ credentials: { accessKeyId, secretAccessKey, sessionToken } });
await whoami(held);
const deadline = Date.now() + 120_000;
let refused;
while (!refused) {
  if (Date.now() > deadline) throw new Error("the session does not end");
  await whoami(held).then(() => new Promise((after) => setTimeout(after, 500)), (error) => { refused = error.name; });
}
const again = await whoami(sts);
const second = (await sts.config.credentials()).accessKeyId;
console.log(JSON.stringify({ way: Object.keys($source ?? {}).join(","), arn, again, refused, first: accessKeyId, second }));
