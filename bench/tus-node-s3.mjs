// @tus/server with @tus/s3-store as its README sets them up. Arguments: port, the store's URL, bucket. Keys come from the
// environment. Copied beside node_modules.
import { Server } from "@tus/server";
import { S3Store } from "@tus/s3-store";

const [port, endpoint, bucket] = process.argv.slice(2);
const datastore = new S3Store({
  partSize: 8 * 1024 * 1024,
  s3ClientConfig: {
    bucket,
    endpoint,
    forcePathStyle: true,
    region: "us-east-1",
    // The SDK's own default costs it a third of its speed, and the store refuses some of what it makes of it.
    requestChecksumCalculation: "WHEN_REQUIRED",
    credentials: {
      accessKeyId: process.env.AWS_ACCESS_KEY_ID,
      secretAccessKey: process.env.AWS_SECRET_ACCESS_KEY,
    },
  },
});
new Server({ path: "/files", datastore }).listen({ host: "127.0.0.1", port: Number(port) });
