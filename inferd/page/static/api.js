// Calls to the server, with the token if there is one. Addresses are relative: a proxy may serve the page below a path.

const KEY = "inferd-token";

/** An answer that is an error, or none at all (status 0). */
export class CallError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export async function call(path, { body, headers = {}, signal } = {}) {
  const known = token.get();
  const options = {
    method: body === undefined ? "GET" : "POST",
    headers: { ...headers, ...(known ? { Authorization: `Bearer ${known}` } : {}) },
    cache: "no-store",
    credentials: "same-origin",
    signal,
  };
  if (body !== undefined) {
    options.body = typeof body === "string" ? body : JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new CallError(0, "The server does not answer.");
  }
  const text = await response.text();
  let content = null;
  try {
    content = text ? JSON.parse(text) : null;
  } catch {
    // A proxy's page, for example.
  }
  if (!response.ok) throw new CallError(response.status, content?.error ?? `The server answered ${response.status}.`);
  return { content, headers: response.headers };
}

const name = encodeURIComponent;

export const status = async (since, digest) =>
  (await call(`page/status?since=${since}&digest=${name(digest)}`)).content;
export const history = async (model, since) =>
  (await call(`page/models/${name(model)}/history?since=${since}`)).content;
export const example = async (model, version, number) =>
  (await call(`page/models/${name(model)}/example?version=${name(version)}&number=${number}`)).content;
export const label = (model, label, version) => call(`page/models/${name(model)}/labels`, { body: { label, version } });
export const load = (model) => call(`v2/repository/models/${name(model)}/load`, { body: {} });
export const unload = (model) => call(`v2/repository/models/${name(model)}/unload`, { body: {} });
export const index = async () => (await call("v2/repository/index", { body: {} })).content;
export const infer = (model, version, body, signal) =>
  call(`v2/models/${name(model)}/versions/${name(version)}/infer`, { body, signal, headers: { "inferd-timing": "1" } });
