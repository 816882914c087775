import { render } from "preact";
import "./style/colours.css";
import "./style/base.css";
import "./style/frame.css";
import "./style/rows.css";
import "./style/search.css";
import "./style/source.css";
import "./style/notebook.css";
import "./style/gdb.css";
import "./style/overlays.css";
import { begin } from "./state/focus";
import { layoutListener } from "./state/layout";
import { notesListener, showNotebook } from "./state/notes";
import { connect } from "./state/session";
import { App } from "./views/frame/app";
import { onKey } from "./views/keys/keys";

document.addEventListener("keydown", onKey);
const root = document.getElementById("app");
if (root) render(<App />, root);
connect([layoutListener, notesListener], () =>
  begin((panesGiven) => {
    if (!panesGiven) showNotebook();
  }),
);
