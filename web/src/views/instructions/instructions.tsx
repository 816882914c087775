// What the focus' task executed around now, with the registers and memory that each instruction used.
import { bytesText } from "../../model/bytes";
import { focus } from "../../state/focus";
import { useWindow } from "../../state/rows";
import type { Focus, InstructionRow } from "../../wire/types";
import { WindowList } from "../executions/executions";
import { openFlow, openUses } from "../menu/menu";
import { FuncName, When } from "../parts/parts";

/** Right behind an instruction that completed. */
function behind(f: Focus): Focus {
  return { ...f, moment: { ...f.moment, instr: f.moment.instr + 1 } };
}

function Registers(props: { of: InstructionRow }) {
  const r = props.of;
  return (
    <>
      {(r.registers ?? [])
        .filter((x) => x.name !== "eflags" && x.name !== "rip")
        .map((x) => (
          <span key={x.name} class="effect">
            <span class="name">{x.name}</span>
            {x.read && x.before !== null && (
              <button
                class="value"
                tabIndex={-1}
                title={`where did ${x.name} come from?`}
                onClick={(e) => {
                  e.stopPropagation();
                  openFlow({ register: x.name }, r.focus, x.name);
                }}
              >
                {x.before}
              </button>
            )}
            {x.written && x.after != null && (
              <>
                <span class="arrow">→</span>
                <button
                  class="value bytes new"
                  tabIndex={-1}
                  title={`where is ${x.name} used?`}
                  onClick={(e) => {
                    e.stopPropagation();
                    openUses({ register: x.name }, behind(r.focus), x.name);
                  }}
                >
                  {x.after}
                </button>
              </>
            )}
          </span>
        ))}
    </>
  );
}

function Memory(props: { of: InstructionRow }) {
  const r = props.of;
  return (
    <>
      {(r.memory ?? []).map((m) => (
        <span key={`${m.address} ${m.written}`} class="effect">
          <span class="name">[{m.address}]</span>
          {m.before !== undefined && (
            <button
              class="value"
              tabIndex={-1}
              title={`where did these ${m.size} bytes come from?`}
              onClick={(e) => {
                e.stopPropagation();
                openFlow({ address: m.address, length: m.size }, r.focus, m.address);
              }}
            >
              {bytesText(m.before)}
            </button>
          )}
          {m.written && m.after !== undefined && (
            <>
              <span class="arrow">→</span>
              <button
                class="value bytes new"
                tabIndex={-1}
                title={`where are these ${m.size} bytes used?`}
                onClick={(e) => {
                  e.stopPropagation();
                  openUses({ address: m.address, length: m.size }, behind(r.focus), m.address);
                }}
              >
                {bytesText(m.after)}
              </button>
            </>
          )}
        </span>
      ))}
    </>
  );
}

export function InstructionsView() {
  const task = focus.value?.task;
  // The window goes by the moment of now; of the focus only the task matters.
  const list = useWindow<InstructionRow>("instructions", task ? { focus: { moment: { event: 0, instr: 0 }, task } } : null);
  return (
    <WindowList
      label="instructions"
      list={list}
      keyOf={(r) => r.kind}
      empty="no instructions"
      rowClass={(r) => r.kind}
      title={(r) => (r.kind === "event" ? r.name : `${r.pc ?? ""}: ${r.bytes ?? ""}`)}
      body={(r) =>
        r.kind === "event" ? (
          <>
            <span class="fn">{r.name}</span>
            {r.result && <span class="value">= {r.result}</span>}
            <When of={r.focus} />
          </>
        ) : (
          <>
            <span class="address">{r.pc}</span>
            <span class="text code">{r.text}</span>
            {r.faulted && <span class="fatal">faulted</span>}
            {r.taken !== undefined && <span class="tag">{r.taken ? "taken" : "not taken"}</span>}
            <Registers of={r} />
            <Memory of={r} />
            <span class="gap" />
            <FuncName of={r.function} pc="" />
            <When of={r.focus} />
          </>
        )
      }
    />
  );
}
