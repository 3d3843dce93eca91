// Node's SDK over HTTP/2 with prior knowledge: records that are put while subscriptions are open arrive in order,
// through several subscriptions and puts on one client. Argument: the endpoint. Fails with a non-zero code.

import assert from "node:assert/strict";
import http from "node:http";
import http2 from "node:http2";
import {
  CreateStreamCommand, DescribeStreamSummaryCommand, GetRecordsCommand, GetShardIteratorCommand, KinesisClient,
  ListShardsCommand, PutRecordCommand, PutRecordsCommand, RegisterStreamConsumerCommand, SplitShardCommand,
  SubscribeToShardCommand,
} from "@aws-sdk/client-kinesis";
import { NodeHttp2Handler } from "@smithy/node-http-handler";

const endpoint = process.argv[2];
const StreamName = `node-${process.pid}`;
const client = new KinesisClient({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
  maxAttempts: 1,
  requestHandler: new NodeHttp2Handler({ requestTimeout: 30_000 }),
});
const text = (bytes) => Buffer.from(bytes).toString();
const step = (name) => process.stderr.write(`node: ${name}\n`);

// Nothing below may wait for ever.
setTimeout(() => {
  process.stderr.write("node: not done within 60 s\n");
  process.exit(1);
}, 60_000).unref();

const headers = { "content-type": "application/x-amz-json-1.1", "x-amz-target": "Kinesis_20131202.ListStreams" };

step("one port speaks HTTP/1.1 and HTTP/2");
const overH1 = await new Promise((resolve, reject) => {
  const request = http.request(endpoint, { method: "POST", headers }, (response) => {
    response.resume();
    response.on("end", () => resolve([response.statusCode, response.httpVersion]));
  });
  request.on("error", reject);
  request.end("{}");
});
assert.deepEqual(overH1, [200, "1.1"]);
const session = http2.connect(endpoint);
const overH2 = await new Promise((resolve, reject) => {
  const request = session.request({ ":method": "POST", ":path": "/", ...headers });
  request.on("response", (answer) => resolve(answer[":status"]));
  request.on("error", reject);
  session.on("error", reject);
  request.resume();
  request.end("{}");
});
session.close();
assert.equal(overH2, 200);

step("put and get");
await client.send(new CreateStreamCommand({ StreamName, ShardCount: 2 }));
const { StreamDescriptionSummary } = await client.send(new DescribeStreamSummaryCommand({ StreamName }));
assert.equal(StreamDescriptionSummary.StreamStatus, "ACTIVE");
const shards = (await client.send(new ListShardsCommand({ StreamName }))).Shards;
const put = await client.send(new PutRecordsCommand({
  StreamName,
  Records: Array.from({ length: 500 }, (_, n) => ({
    PartitionKey: "k", ExplicitHashKey: shards[0].HashKeyRange.StartingHashKey, Data: Buffer.from(`batch-${n}`),
  })),
}));
assert.equal(put.FailedRecordCount, 0);
const { ShardIterator } = await client.send(new GetShardIteratorCommand({
  StreamName, ShardId: shards[0].ShardId, ShardIteratorType: "TRIM_HORIZON",
}));
const got = await client.send(new GetRecordsCommand({ ShardIterator }));
assert.deepEqual(got.Records.map(({ Data }) => text(Data)), Array.from({ length: 500 }, (_, n) => `batch-${n}`));

step("records are pushed to two open subscriptions while they are put");
const { Consumer } = await client.send(new RegisterStreamConsumerCommand({
  StreamARN: StreamDescriptionSummary.StreamARN, ConsumerName: "live",
}));
const open = await Promise.all(shards.map(({ ShardId }) => client.send(new SubscribeToShardCommand({
  ConsumerARN: Consumer.ConsumerARN, ShardId, StartingPosition: { Type: "LATEST" },
}))));
const reading = open.map(async ({ EventStream }) => {
  const seen = { data: [], continuations: [], children: [] };
  for await (const { SubscribeToShardEvent: event } of EventStream) {
    seen.data.push(...event.Records.map(({ Data }) => text(Data)));
    if (event.ContinuationSequenceNumber) seen.continuations.push(event.ContinuationSequenceNumber);
    seen.children.push(...(event.ChildShards ?? []).map(({ ShardId }) => ShardId));
  }
  return seen;
});
for (let n = 0; n < 100; n++) {
  const ExplicitHashKey = shards[n % 2].HashKeyRange.StartingHashKey;
  await client.send(new PutRecordCommand({ StreamName, PartitionKey: "k", ExplicitHashKey, Data: Buffer.from(`live-${n}`) }));
}
// Ends both subscriptions: each shard is split.
for (const { ShardId, HashKeyRange } of shards) {
  const middle = (BigInt(HashKeyRange.StartingHashKey) + BigInt(HashKeyRange.EndingHashKey)) / 2n;
  await client.send(new SplitShardCommand({ StreamName, ShardToSplit: ShardId, NewStartingHashKey: String(middle) }));
}
for (const [which, seen] of (await Promise.all(reading)).entries()) {
  assert.deepEqual(seen.data, Array.from({ length: 50 }, (_, n) => `live-${2 * n + which}`));
  assert.equal(new Set(seen.children).size, 2);
  const sorted = [...seen.continuations].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
  assert.deepEqual(seen.continuations, sorted);
}
step("passed");
client.destroy();
process.exit(0);
