// dockerode: containers, attach, exec, logs, archives, stats, events, volumes and images, by promises.
"use strict";
const assert = require("assert");
const { PassThrough } = require("stream");
const Docker = require("dockerode");

const { IMAGE, NAME } = process.env;
const docker = new Docker(); // from DOCKER_HOST

function collect(stream) {
  return new Promise((resolve, reject) => {
    const parts = [];
    stream.on("data", (part) => parts.push(part));
    stream.on("end", () => resolve(Buffer.concat(parts)));
    stream.on("error", reject);
  });
}

// Splits the frames of a stream into what came on stdout and what on stderr.
async function split(stream) {
  const out = new PassThrough();
  const err = new PassThrough();
  const both = Promise.all([collect(out), collect(err)]);
  docker.modem.demuxStream(stream, out, err);
  stream.on("end", () => (out.end(), err.end()));
  stream.on("close", () => (out.end(), err.end()));
  return (await both).map(String);
}

async function until(holds) {
  for (let turn = 0; !(await holds()); turn++) {
    assert.ok(turn < 100, `not within 10 s: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function runs() {
  const sink = new PassThrough();
  const seen = collect(sink);
  const [result, container] = await docker.run(IMAGE, ["sh", "-c", "echo hi; exit 3"], sink, { Tty: false });
  sink.end();
  assert.strictEqual(result.StatusCode, 3);
  assert.ok(String(await seen).includes("hi\n"));
  await container.remove();
}

async function lives() {
  const container = await docker.createContainer({
    Image: IMAGE,
    name: NAME,
    Cmd: ["sh", "-c", "echo out; echo err >&2; cat; sleep 100"],
    OpenStdin: true,
    StdinOnce: false,
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    Labels: { scenario: NAME },
    HostConfig: { Memory: 64 << 20 },
  });
  const attached = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const texts = split(attached);
  await container.start();
  attached.write("typed\n");
  attached.end();
  await until(async () => (await container.logs({ stdout: true })).includes("typed"));
  const found = await docker.listContainers({ filters: { label: [`scenario=${NAME}`] } });
  assert.deepStrictEqual(found.map((one) => one.Id), [container.id]);
  const shown = await container.inspect();
  assert.strictEqual(shown.HostConfig.Memory, 64 << 20);

  const exec = await container.exec({ Cmd: ["sh", "-c", "echo $0; cat; exit 5", "zero"], AttachStdin: true,
    AttachStdout: true, AttachStderr: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  const output = split(stream);
  stream.write("through\n");
  stream.end();
  assert.deepStrictEqual(await output, ["zero\nthrough\n", ""]);
  assert.strictEqual((await exec.inspect()).ExitCode, 5);

  const stats = await container.stats({ stream: false });
  assert.ok(stats.memory_stats.usage > 0 && stats.memory_stats.limit === 64 << 20);
  assert.ok((await container.top()).Processes.length >= 1);

  const archive = await container.getArchive({ path: "/etc/passwd" });
  const tar = await collect(archive);
  assert.ok(tar.includes("root:x:0:0"));
  await container.putArchive(tar, { path: "/tmp" });

  await container.pause();
  assert.ok((await container.inspect()).State.Paused);
  await container.unpause();
  const logs = await container.logs({ stdout: true, stderr: true, follow: false });
  assert.ok(logs.includes("out\n") && logs.includes("err\n"));
  await container.kill();
  await container.wait();
  assert.deepStrictEqual(await texts, ["out\ntyped\n", "err\n"]);
  const image = await container.commit({ repo: NAME, tag: "saved" });
  assert.ok(image.Id.startsWith("sha256:"));
  await container.remove();
  await assert.rejects(container.inspect(), (error) => error.statusCode === 404 && error.reason === "no such container");
  await docker.getImage(`${NAME}:saved`).remove();
}

async function volumes() {
  const volume = await docker.createVolume({ Name: `${NAME}-v`, Labels: { a: "b" } });
  const listed = await docker.listVolumes();
  assert.ok(listed.Volumes.some((one) => one.Name === `${NAME}-v`));
  await (await docker.getVolume(`${NAME}-v`)).remove();
}

async function tells() {
  assert.strictEqual(String(await docker.ping()), "OK");
  assert.strictEqual((await docker.info()).OSType, "linux");
  assert.ok((await docker.version()).ApiVersion);
}

async function main() {
  const events = await docker.getEvents({ filters: { type: ["container"], event: ["start", "destroy"] } });
  const actions = [];
  events.on("data", (data) => {
    for (const line of String(data).split("\n").filter(Boolean)) {
      const event = JSON.parse(line);
      if (event.Actor.Attributes.name === NAME) actions.push(event.Action);
    }
  });
  await tells();
  await runs();
  await lives();
  await volumes();
  await until(() => actions.length >= 2);
  assert.deepStrictEqual(actions, ["start", "destroy"]);
  events.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
