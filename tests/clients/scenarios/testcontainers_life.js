// testcontainers for Node: a server that is waited for, reached by its port, looked into, and gone at the end.
"use strict";
const assert = require("assert");
const http = require("http");
const { GenericContainer, Wait } = require("testcontainers");

const { IMAGE, NAME } = process.env;
const SERVER = "mkdir -p /www && echo from a container > /www/index.html; echo ready to serve; httpd -f -p 80 -h /www";

function fetch(host, port) {
  return new Promise((resolve, reject) => {
    http
      .get({ host, port, path: "/" }, (answer) => {
        let text = "";
        answer.on("data", (part) => (text += part));
        answer.on("end", () => resolve(text));
      })
      .on("error", reject);
  });
}

async function main() {
  const container = await new GenericContainer(IMAGE)
    .withName(NAME)
    .withEnvironment({ A: "1" })
    .withLabels({ scenario: NAME })
    .withCommand(["sh", "-c", SERVER])
    .withExposedPorts(80)
    .withCopyContentToContainer([{ content: "copied in", target: "/note" }])
    .withWaitStrategy(Wait.forAll([Wait.forLogMessage("ready to serve"), Wait.forListeningPorts()]))
    .withStartupTimeout(120000)
    .start();
  try {
    assert.strictEqual(await fetch(container.getHost(), container.getMappedPort(80)), "from a container\n");
    const result = await container.exec(["sh", "-c", "echo $A; cat /note; exit 4"]);
    assert.strictEqual(result.exitCode, 4);
    assert.strictEqual(result.output, "1\ncopied in");
    assert.strictEqual(container.getName(), `/${NAME}`);
    await container.restart();
    assert.strictEqual(await fetch(container.getHost(), container.getMappedPort(80)), "from a container\n");
  } finally {
    await container.stop();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
