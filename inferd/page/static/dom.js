// Elements from code. Texts are only ever set as text, so names from models cannot become markup.

/** Creates an element. Attributes that are functions listen to events; null and false are left out. */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") created.addEventListener(name, value);
    else if (value === true) created.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) created.setAttribute(name, String(value));
  }
  created.append(...children.filter((child) => child !== null && child !== undefined));
  return created;
}

export const byId = (id) => document.getElementById(id);

/** Sets a text if it differs, so that nothing is laid out or read aloud again without need. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Tells screen readers what has changed. */
export function announce(text) {
  byId("news").textContent = text;
}

/** Asks for a confirmation; resolves to whether it was given. */
export function confirmed(text, action) {
  const dialog = byId("question");
  setText(byId("question-text"), text);
  setText(dialog.querySelector(".primary"), action);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

export function table(columns, rows, caption) {
  const cells = (tag, values) => values.map((value) => element(tag, tag === "th" ? { scope: "col" } : {}, value));
  return element(
    "table",
    {},
    caption ? element("caption", { class: "unseen" }, caption) : null,
    element("thead", {}, element("tr", {}, ...cells("th", columns))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row)))),
  );
}
