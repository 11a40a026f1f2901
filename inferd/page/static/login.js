// The form for a bearer token, shown when the server refuses a call.

import { token } from "./api.js";
import { byId, setText } from "./dom.js";

/** Listens to the form; calls `onChange` when there is another token, or none. */
export function listen(onChange) {
  byId("login-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token.set(byId("token").value.trim());
    byId("token").value = "";
    onChange();
  });
  byId("sign-out").addEventListener("click", () => {
    token.forget();
    onChange();
  });
}

/** Shows the form with what the server said, or hides it when `error` is null. */
export function show(error) {
  const login = byId("login");
  byId("sign-out").hidden = token.get() === null;
  if (error === null) {
    login.hidden = true;
    return;
  }
  const what = token.get() === null ? "This server asks for a token" : "The server refused the token";
  const hint = `${what}: ${error.message}${/[.!?]$/.test(error.message) ? "" : "."}`;
  setText(byId("login-hint"), hint);
  byId("token").setAttribute("aria-invalid", String(token.get() !== null));
  if (login.hidden) {
    login.hidden = false;
    byId("token").focus();
  }
}
