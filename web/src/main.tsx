import { render } from "preact";
import "./style.css";
import { App } from "./views/app";
import { onKey } from "./views/keys";

document.addEventListener("keydown", onKey);
const root = document.getElementById("app");
if (root) render(<App />, root);
