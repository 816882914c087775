// Bytes as people read them: numbers, lines of a dump.

/** The bytes of pairs of hexadecimal digits. */
export function bytesOfHex(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length >> 1);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** Bytes of a write, as a number where they can be one (little-endian), else as they lie in memory. null: not mapped. */
export function bytesText(hex: string | null): string {
  if (hex === null) return "not mapped";
  if (![2, 4, 8, 16].includes(hex.length)) return hex.length > 48 ? `${hex.slice(0, 48)}…` : hex;
  const number = (hex.match(/../g) ?? []).reverse().join("").replace(/^0+(?=.)/, "");
  return `0x${number}`;
}

/** A number of up to eight bytes in decimal, when that says more than the hexadecimal one. */
export function decimalText(hex: string | null): string {
  if (hex === null || ![2, 4, 8, 16].includes(hex.length)) return "";
  const n = BigInt(bytesText(hex));
  const bits = BigInt(hex.length * 4);
  const negative = n >> (bits - 1n) === 1n && hex.length > 2 ? n - (1n << bits) : n;
  const value = negative < 0n && negative > -1_000_000n ? negative : n;
  return value < 10_000_000n ? String(value) : "";
}

/** Bytes that all are readable text, as text. */
export function asciiText(hex: string | null): string {
  if (hex === null || hex.length < 4) return "";
  const codes = (hex.match(/../g) ?? []).map((h) => Number.parseInt(h, 16));
  const end = codes.findIndex((c) => c === 0);
  const text = end < 0 ? codes : codes.slice(0, end);
  return text.length > 1 && text.every((c) => c >= 32 && c < 127) ? `"${String.fromCharCode(...text)}"` : "";
}

/** Of the bytes of a range, those that a write of `size` bytes at `address` wrote. All of them, when it wrote more than the range. */
export function writtenPart(hex: string | null, start: bigint, address: bigint, size: number): string | null {
  if (hex === null) return null;
  const length = BigInt(hex.length / 2);
  const from = address > start ? address - start : 0n;
  const end = address + BigInt(size) - start < length ? address + BigInt(size) - start : length;
  return from < end ? hex.slice(Number(from) * 2, Number(end) * 2) : hex;
}

export const DUMP_WIDTH = 16;

export interface DumpLine {
  readonly address: bigint;
  /** Two digits each; null: not mapped. */
  readonly bytes: readonly (string | null)[];
  readonly ascii: string;
}

/** Lines of 16 bytes from a `memory` row. unmapped: half-open ranges of addresses. */
export function dumpLines(address: bigint, hex: string, unmapped: readonly (readonly [string, string])[]): DumpLine[] {
  const holes = unmapped.map(([start, end]): [bigint, bigint] => [BigInt(start), BigInt(end)]);
  const out: DumpLine[] = [];
  for (let off = 0; off < hex.length / 2; off += DUMP_WIDTH) {
    const bytes: (string | null)[] = [];
    let ascii = "";
    for (let i = off; i < off + DUMP_WIDTH && i < hex.length / 2; i++) {
      const at = address + BigInt(i);
      const byte = holes.some(([start, end]) => at >= start && at < end) ? null : hex.slice(2 * i, 2 * i + 2);
      bytes.push(byte);
      const code = byte === null ? 0 : Number.parseInt(byte, 16);
      ascii += byte === null ? " " : code >= 32 && code < 127 ? String.fromCharCode(code) : "·";
    }
    out.push({ address: address + BigInt(off), bytes, ascii });
  }
  return out;
}

export function addressText(a: bigint): string {
  return `0x${a.toString(16)}`;
}

/** An address as users write it; null: none. */
export function parseAddress(text: string): bigint | null {
  const t = text.trim();
  if (!/^0x[0-9a-f]{1,16}$/i.test(t)) return null;
  return BigInt(t);
}
