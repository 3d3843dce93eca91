// Runs sessions with Node's SDK: reads {endpoint, sessions: [{stream, steps}]} as JSON from stdin, answers a list of
// the answers of each on stdout. suite/boto.py is the same for boto3; the language is in suite/sessions.py.

import * as sdk from "@aws-sdk/client-kinesis";
import { NodeHttp2Handler } from "@smithy/node-http-handler";

const path = (value, words) =>
  words.split(".").reduce((found, word) => (found == null ? undefined : found[word]), value);

function fill(value, names) {
  if (typeof value === "string") {
    const whole = /^\$\{(\w+)\}$/.exec(value);
    if (whole) return names[whole[1]];
    return value.replace(/\$\{(\w+)\}/g, (_, name) => String(names[name]));
  }
  if (Array.isArray(value)) return value.map((item) => fill(item, names));
  if (value === null || typeof value !== "object") return value;
  if ("$bytes" in value) return Buffer.from(fill(value.$bytes, names));
  if ("$fill" in value) return Buffer.alloc(value.$fill, "x");
  if ("$word" in value) return "x".repeat(value.$word);
  if ("$at" in value) {
    const at = fill(value.$at, names);
    return new Date(at <= 0 ? Date.now() + at * 1000 : at * 1000);
  }
  if ("$times" in value) {
    const [count, template] = value.$times;
    return Array.from({ length: count }, (_, i) => fill(template, { ...names, i }));
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fill(item, names)]));
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const text = (bytes) => Buffer.from(bytes).toString();

class Subscription {
  constructor(events) {
    this.answer = { data: [], ended: false, children: [] };
    this.waiting = [];
    this.events = events;
    this.first = new Promise((resolve) => (this.began = resolve));
    this.reading = this.read();
  }

  async read() {
    try {
      for await (const event of this.events) {
        const body = event.SubscribeToShardEvent ?? {};
        this.answer.data.push(...(body.Records ?? []).map((record) => text(record.Data)));
        this.answer.children.push(...(body.ChildShards ?? []).map((child) => child.ShardId).sort());
        this.changed();
      }
    } catch (error) {
      if (error.$fault) this.answer.error = error.name;
    }
    this.answer.ended = true;
    this.changed();
  }

  changed() {
    this.began();
    this.waiting.forEach((look) => look());
  }

  async wait(records, seconds) {
    const enough = () => this.answer.ended || (records > 0 && this.answer.data.length >= records);
    let timer;
    await new Promise((resolve) => {
      timer = setTimeout(resolve, seconds * 1000);
      const look = () => enough() && resolve();
      this.waiting.push(look);
      look();
    });
    clearTimeout(timer);
    return { ...this.answer };
  }
}

class Runner {
  constructor(endpoint, stream) {
    this.names = { stream };
    this.held = {};
    this.client = new sdk.KinesisClient({
      endpoint,
      region: "us-east-1",
      credentials: { accessKeyId: "test", secretAccessKey: "test" },
      maxAttempts: 1,
      // HTTP/2 with prior knowledge on http://.
      requestHandler: new NodeHttp2Handler({ requestTimeout: 30_000 }),
    });
  }

  send(operation, given) {
    return this.client.send(new sdk[`${operation}Command`](given));
  }

  async run(steps) {
    const answers = [];
    for (const step of steps) answers.push(await this.step(step));
    this.client.destroy();
    return answers;
  }

  async step(step) {
    let answer;
    try {
      const given = fill(step.in, this.names);
      answer = await (step.op[0] === "@" ? this[step.op.slice(1)](given) : this.send(step.op, given));
    } catch (error) {
      if (!error.$fault) return { error: error.name, message: "the client cannot read the answer" };
      return { error: error.name, message: error.message };
    }
    delete answer.$metadata;
    for (const [name, where] of Object.entries(step.save)) this.names[name] = path(answer, where);
    return answer;
  }

  async until(ready, seconds = 20) {
    const end = Date.now() + seconds * 1000;
    while (!(await ready())) {
      if (Date.now() > end) return { timeout: true };
      await sleep(100);
    }
    return {};
  }

  active({ stream }) {
    return this.until(async () => {
      const summary = await this.send("DescribeStreamSummary", { StreamName: stream });
      return summary.StreamDescriptionSummary.StreamStatus === "ACTIVE";
    });
  }

  consumer(given) {
    return this.until(async () => {
      const described = await this.send("DescribeStreamConsumer", given);
      return described.ConsumerDescription.ConsumerStatus === "ACTIVE";
    });
  }

  async pause({ seconds }) {
    await sleep(seconds * 1000);
    return {};
  }

  now() {
    return { time: Date.now() / 1000 };
  }

  async drain(given) {
    let iterator = (await this.send("GetShardIterator", given)).ShardIterator;
    const data = [];
    const children = [];
    for (let round = 0; round < 50; round++) {
      const answer = await this.send("GetRecords", { ShardIterator: iterator });
      data.push(...answer.Records.map((record) => text(record.Data)));
      children.push(...(answer.ChildShards ?? []).map((child) => child.ShardId).sort());
      iterator = answer.NextShardIterator;
      if (!iterator || (answer.Records.length === 0 && (answer.MillisBehindLatest ?? 0) === 0)) break;
    }
    return { data, ended: !iterator, children };
  }

  async subscribe({ records, seconds, hold, ...given }) {
    const subscription = new Subscription((await this.send("SubscribeToShard", given)).EventStream);
    if (hold) {
      this.held[hold] = subscription;
      await Promise.race([subscription.first, sleep(seconds * 1000)]);
      return {};
    }
    return subscription.wait(records, seconds);
  }

  async collect({ hold }) {
    const subscription = this.held[hold];
    if (!subscription) return { error: "NotOpen", message: "" };
    return subscription.wait(0, 5);
  }
}

let input = "";
for await (const chunk of process.stdin) input += chunk;
const { endpoint, sessions } = JSON.parse(input);
const answers = await Promise.all(sessions.map(({ stream, steps }) => new Runner(endpoint, stream).run(steps)));
// Blobs of answers as text, as the other runners give them.
const plain = JSON.stringify(answers, (_, value) =>
  value?.type === "Buffer" ? Buffer.from(value.data).toString() : value instanceof Uint8Array ? text(value) : value,
);
process.stdout.write(plain, () => process.exit(0));
