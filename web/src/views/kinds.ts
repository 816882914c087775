// The views that can be opened by name: from the toolbox and the search box.
import type { ViewName } from "../model/search";

export const VIEWS: readonly ViewName[] = [
  { view: "source", title: "Source", words: "code file" },
  { view: "stack", title: "Stack", words: "frames backtrace callers" },
  { view: "callees", title: "Calls", words: "callees called functions" },
  { view: "variables", title: "Variables", words: "locals parameters arguments" },
  { view: "evaluate", title: "Expressions", words: "evaluate print watch values" },
  { view: "stdouterr", title: "Output", words: "stdout stderr printed" },
  { view: "notebook", title: "Notebook", words: "notes" },
  { view: "registers", title: "Registers", words: "cpu" },
  { view: "instructions", title: "Instructions", words: "assembly disassembly machine code" },
  { view: "memory", title: "Memory", words: "hexdump bytes" },
  { view: "allocations", title: "Heap", words: "allocations leaks malloc new allocated memory" },
  { view: "alerts", title: "Alerts", words: "crash fatal assertion failure exit status panic" },
  { view: "signals", title: "Signals", words: "sigsegv" },
  { view: "task-tree", title: "Task tree", words: "processes threads" },
  { view: "current-tasks", title: "Current tasks", words: "processes threads alive" },
  { view: "gdb", title: "gdb", words: "debugger terminal console commands" },
  { view: "events", title: "Events", words: "system calls syscalls" },
];
