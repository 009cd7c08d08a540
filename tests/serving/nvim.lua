-- Run by tests/serving/test_neovim.py: nvim -u NONE -l nvim.lua PYTHON MODEL FILE GHOST
local python, model, file, lua = unpack(arg)

local function fail(why)
  io.stderr:write(why .. "\n")
  os.exit(1)
end

vim.cmd.edit(file)
local buffer = vim.api.nvim_get_current_buf()
local ready = false
local id = vim.lsp.start({
  name = "pie",
  cmd = { python, "-m", "pie_cli", "lsp" },
  root_dir = vim.fs.dirname(file),
  init_options = { model = model, maxTokens = 8, device = "cpu", strategy = "pie+seam:8" },
  handlers = {
    ["pie/status"] = function(_, status)
      ready = ready or status.state == "ready"
      if status.state == "failed" then
        fail(status.message)
      end
    end,
  },
})
local client = vim.lsp.get_client_by_id(id)
if not vim.wait(60000, function() return ready end, 20) then
  fail("the server is not ready")
end

-- Asks at the end of the current line, where the cursor is in insert mode.
local function ask()
  local row = vim.api.nvim_win_get_cursor(0)[1]
  local line = vim.api.nvim_get_current_line()
  local character = vim.str_utfindex(line, client.offset_encoding)
  local answer = client:request_sync("textDocument/inlineCompletion", {
    textDocument = { uri = vim.uri_from_bufnr(buffer) },
    position = { line = row - 1, character = character },
    context = { triggerKind = 1 },
  }, 60000, buffer)
  if not answer or answer.err or not answer.result then
    fail("no answer: " .. vim.inspect(answer))
  end
  return answer.result.items[1]
end

local function explain()
  return client:request_sync("workspace/executeCommand", {
    command = "pie.explain",
    arguments = { vim.uri_from_bufnr(buffer) },
  }, 60000, buffer).result
end

local function typed(keys)
  vim.api.nvim_feedkeys(vim.api.nvim_replace_termcodes(keys, true, false, true), "tx", false)
end

-- Insert mode in the middle of the file; the é has another width in each encoding.
typed("20Go    name = 'é' + <Esc>")
local item = ask()
local at = item.range.start
local byte = vim.str_byteindex(vim.api.nvim_get_current_line(), client.offset_encoding, at.character)
local lines = vim.split(item.insertText, "\n", { plain = true })
vim.api.nvim_buf_set_text(buffer, at.line, byte, at.line, byte, lines)
client:request_sync("workspace/executeCommand", item.command, 60000, buffer)
local accepted = vim.api.nvim_buf_get_lines(buffer, 20, 21, true)[1]

-- A second line further up: most of the cache is kept.
typed("5Go    other = <Esc>")
ask()
local found = explain()
local text = table.concat(vim.api.nvim_buf_get_lines(buffer, 0, -1, true), "\n") .. "\n"
-- The ghost text of docs/nvim/pie.lua: shown at the cursor, taken over, gone.
local ghost = dofile(lua)
local space = vim.api.nvim_get_namespaces().pie
local function marks()
  return vim.api.nvim_buf_get_extmarks(buffer, space, 0, -1, { details = true })
end
typed("9Go    third = <Esc>")
ghost.ask()
if not vim.wait(60000, function() return #marks() > 0 end, 20) then
  fail("no ghost text")
end
local ghostly = marks()[1][4].virt_text[1][1]
local place = vim.api.nvim_get_current_line()
local took = ghost.accept()
local after = vim.api.nvim_get_current_line()

text = table.concat(vim.api.nvim_buf_get_lines(buffer, 0, -1, true), "\n") .. "\n"
io.stdout:write(vim.json.encode({
  ghost = { shown = ghostly, took = took, again = ghost.accept(), left = #marks() },
  grown = #after > #place,
  inserted = item.insertText,
  line = accepted,
  tokens = found.document.tokens,
  accepted = found.accepted,
  same = explain().digest == vim.fn.sha256(text),
  encoding = client.offset_encoding,
}))
vim.lsp.stop_client(id)
vim.wait(5000, function() return client:is_stopped() end, 20)
os.exit(0)
