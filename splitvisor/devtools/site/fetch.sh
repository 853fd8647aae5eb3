#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# fetch.sh DIRECTORY: put Mermaid there, exactly as package-lock.json has it. Needs npm and its registry. A copy of the lock file in
# DIRECTORY states what it holds: nothing is fetched twice.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1
if cmp -s "$here/package-lock.json" "$target/package-lock.json"; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/package.json" "$here/package-lock.json" "$work"
(cd "$work" && npm ci --silent --ignore-scripts --no-audit --no-fund >/dev/null)
mermaid=$work/node_modules/@mermaid-js/tiny
rm -rf "$target"
mkdir -p "$target"
cp "$mermaid/dist/mermaid.tiny.js" "$mermaid/LICENSE" "$target"
cp "$here/package-lock.json" "$target" # last: with it, everything is there
