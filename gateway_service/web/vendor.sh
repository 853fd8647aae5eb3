#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Puts what the web page takes from npm, exactly as package-lock.json has it, into ../static/vendor, and its source code into sources.
# Needs npm and its registry. A copy of the lock file there says what vendor holds: who has the same one fetches nothing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
vendor=$here/../static/vendor
if cmp -s "$here/package-lock.json" "$vendor/package-lock.json" && [ -d "$here/sources" ]; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/package.json" "$here/package-lock.json" "$work"
(cd "$work" && npm ci --silent --ignore-scripts --no-audit --no-fund >/dev/null)
xterm=$work/node_modules/@xterm/xterm fit=$work/node_modules/@xterm/addon-fit
rm -rf "$vendor" "$here/sources"
mkdir -p "$vendor" "$here/sources/xterm" "$here/sources/addon-fit"
cp -r "$xterm/src" "$xterm/package.json" "$xterm/LICENSE" "$here/sources/xterm"
cp -r "$fit/src" "$fit/package.json" "$fit/LICENSE" "$here/sources/addon-fit"
cp "$xterm/lib/xterm.mjs" "$xterm/css/xterm.css" "$fit/lib/addon-fit.mjs" "$vendor"
cp "$xterm/LICENSE" "$vendor/LICENSE.xterm"
cp "$fit/LICENSE" "$vendor/LICENSE.addon-fit"
cp "$here/package-lock.json" "$vendor" # last: with it, everything is there
