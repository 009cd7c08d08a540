-- Ghost text from `pie lsp` for Neovim 0.11, which has no inline completion of its own (0.12 has).
-- Put this file at ~/.config/nvim/lua/pie.lua and say in init.lua: require("pie").setup()
local M = {}

local space = vim.api.nvim_create_namespace("pie")
local shown -- { buffer, row, column, stop, lines, command, client }

local function clear()
  if shown then
    vim.api.nvim_buf_clear_namespace(shown.buffer, space, 0, -1)
    shown = nil
  end
end

local function show(client, buffer, item)
  local row = item.range.start.line
  local line = vim.api.nvim_buf_get_lines(buffer, row, row + 1, true)[1]
  local column = vim.str_byteindex(line, client.offset_encoding, item.range.start.character)
  local stop = vim.str_byteindex(line, client.offset_encoding, item.range["end"].character)
  local lines = vim.split(item.insertText, "\n", { plain = true })
  local below = {}
  for index = 2, #lines do
    below[#below + 1] = { { lines[index], "Comment" } }
  end
  -- What the item takes the place of (brackets closed by a plugin) is seen already, if it is whole.
  local taken, head, tail = line:sub(column + 1, stop), lines[1], ""
  local first, last = head:find(taken, 1, true)
  if taken ~= "" and first then
    head, tail = lines[1]:sub(1, first - 1), lines[1]:sub(last + 1)
  end
  vim.api.nvim_buf_set_extmark(buffer, space, row, column, {
    virt_text = { { head, "Comment" } },
    virt_text_pos = "inline",
    virt_lines = below,
  })
  if tail ~= "" then
    vim.api.nvim_buf_set_extmark(buffer, space, row, stop, {
      virt_text = { { tail, "Comment" } },
      virt_text_pos = "inline",
    })
  end
  shown = {
    buffer = buffer,
    row = row,
    column = column,
    stop = stop,
    lines = lines,
    command = item.command,
    client = client,
  }
end

-- Asks for a line at the cursor; what is shown for an older text goes.
function M.ask()
  clear()
  local buffer = vim.api.nvim_get_current_buf()
  local client = vim.lsp.get_clients({ name = "pie", bufnr = buffer })[1]
  if not client then
    return
  end
  local tick = vim.api.nvim_buf_get_changedtick(buffer)
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = 2 }
  client:request("textDocument/inlineCompletion", params, function(err, result)
    local same = vim.api.nvim_buf_is_valid(buffer)
      and tick == vim.api.nvim_buf_get_changedtick(buffer)
    if err or not result or not result.items[1] or not same then
      return
    end
    clear()
    show(client, buffer, result.items[1])
  end, buffer)
end

-- Takes over what is shown; returns whether there was anything.
function M.accept()
  local found = shown
  if not found then
    return false
  end
  clear()
  local buffer, row, column, lines = found.buffer, found.row, found.column, found.lines
  vim.api.nvim_buf_set_text(buffer, row, column, row, found.stop, lines)
  local last = lines[#lines]
  vim.api.nvim_win_set_cursor(0, { row + #lines, #lines > 1 and #last or column + #last })
  found.client:exec_cmd(found.command, { bufnr = buffer })
  return true
end

function M.setup(options)
  options = options or {}
  vim.lsp.config("pie", {
    cmd = options.cmd or { "pie", "lsp" },
    root_markers = { "pie.toml", "pyproject.toml", ".git" },
    init_options = options.settings or vim.empty_dict(),
  })
  vim.lsp.enable("pie")
  local group = vim.api.nvim_create_augroup("pie", {})
  vim.api.nvim_create_autocmd({ "TextChangedI", "CursorMovedI" }, {
    group = group,
    callback = M.ask,
  })
  vim.api.nvim_create_autocmd("InsertLeave", { group = group, callback = clear })
  vim.keymap.set("i", options.accept or "<Tab>", function()
    if M.accept() then
      return
    end
    vim.api.nvim_feedkeys(vim.keycode("<Tab>"), "n", false)
  end)
end

return M
