// The protocol's messages and rows: docs/protocol.md. What the server sends is checked for its shape where it enters.

export interface Moment {
  readonly event: number;
  readonly instr: number;
}
export interface TaskId {
  readonly tid: number;
  readonly serial: number;
}
export interface Focus {
  readonly moment: Moment;
  readonly task?: TaskId;
  readonly frame?: number;
}
/** A row that is a place in time. */
export interface Timed {
  readonly focus: Focus;
}
export interface Location {
  readonly file: string;
  readonly line: number;
  readonly column?: number;
}
export interface Func {
  readonly name: string;
  readonly full: string;
  readonly id: string;
}
export interface Value {
  readonly text?: string;
  readonly why?: string;
  readonly type?: string;
  readonly address?: string;
  readonly size?: number;
  readonly pointer?: string;
}
export interface NamedValue {
  readonly name: string;
  readonly value: Value;
  readonly kind?: string;
  /** What `evaluate` finds it by. */
  readonly expression?: string;
  /** It has parts. */
  readonly unfolds?: boolean;
}
export interface Info {
  readonly title: string;
  readonly instructions: number;
  readonly events: number;
  readonly exe?: string;
  readonly argv?: readonly string[];
  readonly trace?: string;
  readonly tasks: number;
  readonly segments: number;
  readonly databaseBytes: number;
  /** false: the database is being made, and ends where it has got to. */
  readonly complete: boolean;
  readonly end: Moment;
  readonly firstFocus: Focus;
  readonly firstFocusReason: string;
}
export interface FrameRow {
  readonly frame: number;
  readonly function?: Func;
  readonly location?: Location;
  readonly pc: string;
  readonly module?: string;
  readonly args: readonly NamedValue[];
  readonly focus: Focus;
  readonly entry?: Focus;
  readonly kind: string;
  readonly inline?: boolean;
}
export interface CompleteFrame {
  readonly focus: Focus;
  readonly task: TaskId;
  readonly function?: Func;
  readonly location?: Location;
  readonly pc: string;
  readonly module?: string;
  readonly taskName?: string;
  readonly instruction?: string;
  readonly event?: { readonly number: number; readonly name: string };
}
export interface HitRow {
  readonly focus: Focus;
  readonly task: TaskId;
  readonly function?: Func;
  readonly location?: Location;
  readonly args?: readonly NamedValue[];
  readonly result?: Value;
  readonly end?: Moment;
  readonly noReturn?: boolean;
  readonly inlined?: boolean;
  readonly pc?: string;
  readonly prints?: readonly NamedValue[];
  readonly conditionError?: string;
}
/** A call of a frame: `callees`, `call`. */
export interface CallRow extends HitRow {
  readonly kind: "call" | "signal" | "start" | "tail";
  readonly left?: "return" | "unwound" | "exit" | "event";
  /** Of code of which the type of the result is not known. */
  readonly rax?: string;
}
export interface WriteRow {
  readonly focus: Focus;
  readonly task: TaskId;
  readonly address: string;
  readonly size: number;
  readonly access: "read" | "write";
  readonly before: string | null;
  /** Of a write. */
  readonly after?: string | null;
  readonly by: string;
  readonly function?: Func;
  readonly location?: Location;
  readonly event?: { readonly number: number; readonly name: string };
  readonly possible?: boolean;
}
export interface OutputRow {
  readonly focus: Focus;
  readonly task: TaskId;
  readonly fd: number;
  readonly text: string;
}
export interface SignalRow {
  readonly focus: Focus;
  readonly task: TaskId;
  readonly signal: string;
  readonly address?: string;
  readonly fatal: boolean;
  readonly disposition: string;
}
export interface AlertRow extends Partial<SignalRow> {
  readonly focus: Focus;
  readonly task: TaskId;
  readonly kind: "signal" | "exit" | "assertion" | "corruption" | "exception" | "panic" | "sanitizer" | "test";
  readonly text: string;
  readonly function?: Func;
  readonly location?: Location;
  /** What the allocator was to free when it noticed. */
  readonly heap?: string;
}
/** Rows of `allocation`: the first tells the place, the others what happened to it. */
export interface HeapPlaceRow {
  readonly kind: "place";
  readonly address: string;
  readonly mapping?: MapRow;
  readonly stackOf?: TaskId;
}
interface HeapCall {
  readonly call: string;
  readonly focus: Focus;
  readonly task: TaskId;
  readonly function?: Func;
  readonly location?: Location;
}
export interface AllocationRow extends HeapCall {
  readonly kind: "allocation";
  readonly id: number;
  readonly state: "alive" | "freed";
  readonly start: string;
  readonly size: number;
  readonly offset?: number;
  readonly behind?: number;
  readonly end: Moment;
}
export interface FreeRow extends HeapCall {
  readonly kind: "free";
  readonly of: number;
  readonly moved?: { readonly start: string; readonly size: number };
  readonly again?: true;
}
export type LifeRow = HeapPlaceRow | AllocationRow | FreeRow;
/** Rows of `allocations`. */
export interface HeapTotalRow {
  readonly kind: "total";
  readonly count: number;
  readonly bytes: number;
  readonly callers: number;
}
export interface HeapRow extends HeapCall {
  readonly kind: "caller";
  readonly count: number;
  readonly bytes: number;
  readonly start: string;
  readonly size: number;
}
export interface TaskRow {
  readonly task: TaskId;
  readonly parent?: TaskId;
  readonly kind: string;
  readonly how: string;
  readonly name: string;
  readonly start: Moment;
  readonly end?: Moment;
  readonly exits?: { readonly status: number; readonly signal?: string };
  readonly execs: readonly { readonly moment: Moment; readonly argv: readonly string[]; readonly bits: number }[];
  readonly bits?: number;
}
export interface EventRow {
  readonly focus: Focus;
  readonly task: TaskId;
  readonly number: number;
  readonly name: string;
  readonly detail?: string;
}
export interface LineRow {
  readonly line: number;
  readonly strength: "strong" | "weak";
  readonly focus: Focus;
  readonly count: number;
}
export interface RegisterRow {
  readonly name: string;
  readonly value: string;
}
export interface FlowPlace {
  readonly register?: string;
  readonly address?: string;
  readonly length?: number;
}
export interface DataflowRow {
  readonly id: number;
  readonly parent?: number;
  readonly kind: string;
  readonly focus: Focus;
  readonly task: TaskId;
  readonly to?: FlowPlace;
  readonly from?: FlowPlace;
  readonly offset: number;
  readonly length: number;
  readonly value?: string;
  readonly text?: string;
  readonly pc?: string;
  readonly function?: Func;
  readonly location?: Location;
  readonly event?: { readonly number: number; readonly name: string };
  readonly path?: string;
  readonly fileOffset?: number;
  readonly why?: string;
  /** Of bytes that one task wrote and another read: */
  readonly through?: string;
  readonly streamOffset?: number;
  readonly fd?: number;
  readonly writer?: { readonly focus: Focus; readonly task: TaskId; readonly fd: number; readonly text: string };
  /** Of `uses`: */
  readonly faulted?: boolean;
  readonly decides?: { readonly text: string; readonly pc: string; readonly taken?: boolean };
}
export interface InstructionRow {
  readonly focus: Focus;
  readonly task: TaskId;
  readonly kind: "instruction" | "event";
  readonly pc?: string;
  readonly bytes?: string;
  readonly text?: string;
  readonly function?: Func;
  readonly taken?: boolean;
  readonly faulted?: boolean;
  readonly registers?: readonly {
    readonly name: string;
    readonly read: boolean;
    readonly written: boolean;
    readonly before: string | null;
    readonly after?: string | null;
  }[];
  readonly memory?: readonly {
    readonly address: string;
    readonly size: number;
    readonly read: boolean;
    readonly written: boolean;
    readonly before?: string;
    readonly after?: string;
  }[];
  readonly name?: string;
  readonly result?: string;
}
export interface MemoryRow {
  readonly address: string;
  readonly bytes: string;
  readonly unmapped?: readonly (readonly [string, string])[];
}
export interface MapRow {
  readonly start: string;
  readonly end: string;
  readonly prot: string;
  readonly name: string;
}
export interface SourceFileRow {
  readonly file: string;
  readonly url: string;
  readonly found: boolean;
  readonly why?: string;
  readonly address?: string;
}
export interface FunctionLineRow {
  readonly function: Func;
  readonly line: number;
}
export interface CountsRow {
  /** Executions of which the condition could not be told. */
  readonly failed?: number;
  readonly total: number;
  readonly buckets: readonly number[];
}
export interface LaneRow {
  readonly task?: TaskId;
  readonly runs: readonly (readonly [number, number, number])[];
}
export interface TimelineRow {
  readonly from: Moment;
  readonly to: Moment;
  readonly instructions: number;
  readonly columns: readonly Moment[];
  readonly lanes: readonly LaneRow[];
  readonly segments: readonly number[];
}
export interface SearchRow {
  readonly kind: string;
  readonly title: string;
  readonly detail: string;
  readonly count?: number;
  readonly action: {
    readonly view?: string;
    readonly function?: Func;
    readonly location?: Location;
    readonly focus?: Focus;
  };
  readonly location?: Location;
}
export interface Failure {
  readonly kind: string;
  readonly message: string;
}
export interface Note {
  readonly focus: Focus;
  readonly ordering: number;
  readonly text: string;
  readonly snippet: string;
  readonly color?: string;
}
