// SPDX-License-Identifier: GPL-2.0-or-later
// Requests to the gateway.

async function answer(response) {
  if (response.status === 401) {
    window.location.assign("/");
    throw new Error("signed out");
  }
  const content = await response.json().catch(() => ({ error: response.statusText }));
  if (!response.ok) throw new Error(content.error || `HTTP ${response.status}`);
  return content;
}

/** Fetch something; throws an Error whose message is for people. */
export async function get(path) {
  return answer(await fetch(path, { signal: AbortSignal.timeout(20000) }));
}

/** Ask for a change. */
export async function post(path) {
  return answer(await fetch(path, { method: "POST", signal: AbortSignal.timeout(20000) }));
}

/** Return the path of something of a VM. */
export function vmPath(vm, what) {
  return `/api/vms/${encodeURIComponent(vm)}/${what}`;
}

/** Open a WebSocket of a VM. */
export function openSocket(vm, what) {
  const url = new URL(vmPath(vm, what), window.location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  return socket;
}
