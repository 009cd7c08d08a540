// Starts `pie lsp` and lets vscode-languageclient do the rest: documents, ghost text, progress.
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

async function activate(context) {
  const [command, ...args] = vscode.workspace.getConfiguration("pie").get("command");
  client = new LanguageClient(
    "pie",
    "pie",
    { command, args },
    { documentSelector: [{ scheme: "file" }, { scheme: "untitled" }] },
  );
  const item = vscode.window.createStatusBarItem(vscode.StatusBarAlignment.Right);
  item.command = "pie.explainHere";
  item.show();
  context.subscriptions.push(item);
  client.onNotification("pie/status", (status) => {
    const document = status.document;
    item.text = `pie: ${status.state}`;
    if (document) {
      const exact = document.exact ? "exact" : `${document.tokens.stale} stale`;
      item.text = `pie: ${document.tokens.encoded} encoded, ${exact}`;
    }
    item.tooltip = status.model;
  });
  context.subscriptions.push(
    vscode.commands.registerCommand("pie.explainHere", async () => {
      const editor = vscode.window.activeTextEditor;
      if (!editor) return;
      const found = await client.sendRequest("workspace/executeCommand", {
        command: "pie.explain",
        arguments: [client.code2ProtocolConverter.asUri(editor.document.uri)],
      });
      const content = JSON.stringify(found, null, 2);
      const shown = await vscode.workspace.openTextDocument({ content, language: "json" });
      await vscode.window.showTextDocument(shown, { preview: true });
    }),
  );
  await client.start();
}

function deactivate() {
  return client && client.stop();
}

module.exports = { activate, deactivate };
