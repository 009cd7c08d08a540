// Run by tests/serving/test_node.py: node client.js PYTHON MODEL TEXT, with
// vscode-languageserver-protocol, the protocol layer of vscode-languageclient, on NODE_PATH.
const { spawn } = require("node:child_process");
const { readFileSync } = require("node:fs");
const rpc = require("vscode-languageserver-protocol/node");

const [python, model, file] = process.argv.slice(2);
const text = readFileSync(file, "utf8");
const uri = "file:///code/area.py";

async function main() {
  const server = spawn(python, ["-m", "pie_cli", "lsp"], { stdio: ["pipe", "pipe", "inherit"] });
  const connection = rpc.createProtocolConnection(server.stdout, server.stdin);
  const titles = [];
  let ready;
  const isReady = new Promise((resolve) => (ready = resolve));
  connection.onNotification("pie/status", (status) => status.state !== "loading" && ready(status));
  connection.onRequest(rpc.WorkDoneProgressCreateRequest.type, () => null);
  connection.onNotification("$/progress", ({ value }) => value.title && titles.push(value.title));
  connection.onRequest(rpc.ConfigurationRequest.type, ({ items }) =>
    items.map(() => ({ model, device: "cpu", maxTokens: 8, strategy: "pie+seam:8" })),
  );
  connection.listen();
  const { capabilities } = await connection.sendRequest(rpc.InitializeRequest.type, {
    processId: process.pid,
    rootUri: "file:///work",
    capabilities: {
      general: { positionEncodings: ["utf-16"] },
      window: { workDoneProgress: true },
      workspace: { configuration: true },
      textDocument: { inlineCompletion: {} },
    },
  });
  await connection.sendNotification(rpc.InitializedNotification.type, {});
  const status = await isReady;
  const textDocument = { uri, languageId: "python", version: 1, text };
  await connection.sendNotification(rpc.DidOpenTextDocumentNotification.type, { textDocument });
  const ask = (line, character, token) =>
    connection.sendRequest(
      rpc.InlineCompletionRequest.type,
      {
        textDocument: { uri },
        position: { line, character },
        context: { triggerKind: rpc.InlineCompletionTriggerKind.Invoked },
      },
      token,
    );
  const first = await ask(1, 8);
  const range = rpc.Range.create(9, 4, 9, 4);
  await connection.sendNotification(rpc.DidChangeTextDocumentNotification.type, {
    textDocument: { uri, version: 2 },
    contentChanges: [{ range, rangeLength: 0, text: "more = '😀' + 1\n    " }],
  });
  const source = new rpc.CancellationTokenSource();
  const cancelled = ask(10, 4, source.token).then(
    () => "answered",
    (error) => error.code,
  );
  source.cancel();
  const second = await ask(9, 15);
  // Takes the first answer, as an editor does: the text, then the command that came with it.
  const [item] = first.items;
  await connection.sendNotification(rpc.DidChangeTextDocumentNotification.type, {
    textDocument: { uri, version: 3 },
    contentChanges: [{ range: item.range, text: item.insertText }],
  });
  await connection.sendRequest(rpc.ExecuteCommandRequest.type, {
    command: item.command.command,
    arguments: item.command.arguments,
  });
  const third = await ask(9, 15);
  const explained = await connection.sendRequest(rpc.ExecuteCommandRequest.type, {
    command: "pie.explain",
    arguments: [uri],
  });
  const result = {
    state: status.state,
    sync: capabilities.textDocumentSync.change,
    offered: capabilities.inlineCompletionProvider,
    inserted: item.insertText,
    second: second === null || second.items.length,
    third: third === null || third.items.length,
    cancelled: await cancelled,
    tokens: explained.document.tokens,
    version: explained.version,
    accepted: explained.accepted,
    digest: explained.digest,
    titles,
  };
  await connection.sendRequest(rpc.ShutdownRequest.type);
  await connection.sendNotification(rpc.ExitNotification.type);
  const code = await new Promise((resolve) => server.on("exit", (exit, signal) => resolve(signal ?? exit)));
  console.log(JSON.stringify({ ...result, code }));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
