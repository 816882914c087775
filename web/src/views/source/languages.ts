// Syntax by file name; each language is loaded when it is first needed.
import { type LanguageSupport, StreamLanguage, type StreamParser } from "@codemirror/language";
import type { Extension } from "@codemirror/state";

type Loaded = Promise<Extension>;

const parser = async (l: Promise<LanguageSupport>): Loaded => l;
const stream = async (mode: Promise<StreamParser<unknown>>): Loaded => StreamLanguage.define(await mode);
const cpp = (): Loaded => parser(import("@codemirror/lang-cpp").then((m) => m.cpp()));

const BY_ENDING: { readonly [ending: string]: () => Loaded } = {
  c: cpp,
  h: cpp,
  cc: cpp,
  cpp,
  cxx: cpp,
  hh: cpp,
  hpp: cpp,
  hxx: cpp,
  inc: cpp,
  ipp: cpp,
  tcc: cpp,
  y: cpp,
  l: cpp,
  m: cpp,
  rs: () => parser(import("@codemirror/lang-rust").then((m) => m.rust())),
  py: () => parser(import("@codemirror/lang-python").then((m) => m.python())),
  s: () => stream(import("@codemirror/legacy-modes/mode/gas").then((m) => m.gas)),
  asm: () => stream(import("@codemirror/legacy-modes/mode/gas").then((m) => m.gas)),
  sh: () => stream(import("@codemirror/legacy-modes/mode/shell").then((m) => m.shell)),
};

/** null: shown as plain text. Headers of the C++ library have no ending: they are C++. */
export function languageOf(file: string): Loaded | null {
  const name = file.slice(file.lastIndexOf("/") + 1);
  const dot = name.lastIndexOf(".");
  const ending = dot < 0 ? "cc" : name.slice(dot + 1).toLowerCase();
  return BY_ENDING[ending]?.() ?? null;
}
