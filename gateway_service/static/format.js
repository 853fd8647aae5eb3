// SPDX-License-Identifier: GPL-2.0-or-later
// Numbers for people.

/** 1234567 as 1,234,567. */
export function count(number) {
  return Math.round(number).toLocaleString("en");
}

/** Calls per second. */
export function rate(number) {
  return number > 0 && number < 10 ? number.toFixed(1) : count(number);
}

/** Seconds of CPU or waiting. */
export function seconds(number) {
  return `${number.toFixed(number < 10 ? 3 : 1)} s`;
}

/** A mean time in a fitting unit. */
export function latency(value) {
  return value < 1e-3 ? `${(value * 1e6).toFixed(0)} µs` : value < 1 ? `${(value * 1e3).toFixed(1)} ms` : seconds(value);
}

/** An uptime, such as 1 h 02 min or 12 s. */
export function duration(value) {
  const total = Math.floor(value);
  const hours = Math.floor(total / 3600);
  const minutes = Math.floor(total / 60) % 60;
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return minutes ? `${minutes} min ${String(total % 60).padStart(2, "0")} s` : `${total} s`;
}

/** A unit address. */
export function unit(address) {
  return `0x${address.toString(16)}`;
}
