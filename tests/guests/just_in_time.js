// SPDX-License-Identifier: GPL-2.0-or-later
// Computes a number that compiled and interpreted code must agree on. Every round makes new code, changes it and lets it go.
'use strict';

const rounds = Number(process.argv[2]);
let digest = 0;

function note(value) {
    digest = (Math.imul(digest, 31) + (value | 0)) | 0;
}

function sum(list, count) {
    let total = 0;
    for (let index = 0; index < count; index++)
        total = (total + list[index % list.length] * index) | 0;
    return total;
}

function multiplier(factor) {
    if (typeof WebAssembly === 'undefined')
        return x => (Math.imul(x, factor) + 7) << 3;
    const bytes = [
        0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0,
        10, 16, 1, 14, 0, 32, 0, 65, 128 | factor, 0, 108, 65, 7, 106, 65, 3, 116, 11,
    ];
    return new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(bytes))).exports.f;
}

for (let round = 0; round < rounds; round++) {
    // Compiled for small integers; then that code is wrong, and is thrown away twice.
    const integers = Array.from({length: 64}, (_, index) => index * round);
    for (let call = 0; call < 40; call++)
        note(sum(integers, 500));
    note(sum(integers.map(value => value + 0.5), 500));
    note(sum(integers.map(value => ({valueOf: () => value})), 300));

    for (let number = 0; number < 60; number++) {
        const body = `let s = ${number}; for (let i = 0; i < 300; i++) s = (s * ${number + 3} + x + i) | 0; return s;`;
        const made = new Function('x', body);
        for (let call = 0; call < 12; call++)
            note(made(call + round));
    }

    const text = 'abc'.repeat(50) + round + 'xyz'.repeat(40);
    for (let length = 1; length <= 20; length++) {
        const pattern = new RegExp(`(b|c)+?a{1,${length}}(?:[x-z]|\\d){0,${length - 1}}`, 'g');
        for (const match of text.matchAll(pattern))
            note(match.index + match[0].length);
    }

    const multiply = multiplier(round + 1);
    for (let call = 0; call < 2000; call++)
        note(multiply(call));
}
process.stdout.write(`DIGEST ${digest >>> 0}\n`);
