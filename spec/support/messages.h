/* SPDX-License-Identifier: MIT */
/*
 * messages.h - what the checks of the marshaller send: values of all kinds.
 */
#ifndef MESSAGES_H
#define MESSAGES_H

/* The modules of both sides. */
static const char prelude[] =
  "package.searchers = { package.searchers[1] }\n"
  "local shapes = { Point = {} }\n"
  "shapes.Point.__index = shapes.Point\n"
  "shapes.NONE = setmetatable({ x = 1, t = {} }, { __name = 'none' })\n"
  "function shapes.Point.new (x, y)\n"
  "  return setmetatable({ x = x, y = y }, shapes.Point)\n"
  "end\n"
  "package.loaded.shapes = shapes\n";

/* Chunks whose values hold every kind of tag. */
static const char *const corpus[] = {
  "return nil, true, false, 0, 127, 128, -1, -129, math.mininteger, 0.5",
  "return 'short', ('long'):rep(100), ''",
  "return { 1, 2, 3, nil, 5, x = { y = { z = 1 } }, [2.5] = true }",
  "local t = {} t.self = t t[1] = { t } return t, t[1]",
  "local m = { __mode = 'k' } return setmetatable({ 1 }, m), m",
  "local m = { all = {} } m.all[1] = setmetatable({}, m) return m",
  "return print, string.format, string, _G, require 'shapes'",
  "local p = require('shapes').Point return p.new(1, 2), p.new(3, 4)",
  "return setmetatable({}, { __transfer = function () return { 1 } end })",
  "return setmetatable({}, { __transfer = function () return print, 1 end })",
  "local n = 0 return function () n = n + 1 return n end,"
    " function () return n end",
  "local t = {} for i = 1, 50 do t[i] = { id = i, name = 'n' .. i } end"
    " return t",
  "local t = {} for i = 1, 20 do t[{}] = { [i * 1000] = -i } end return t",
  "local t = {} for i = 1, 30 do t[i] = i < 15 and i or i / 2 end return t",
  "local t = {} for i = 1, 40 do t[i] = { id = i, l = { { x = i, y = 1 },"
    " { z = i }, { z = 2 }, { x = i } } } end return t",
  "local n = require('shapes').NONE return n, { n, n.t }, n",
  "local t = {} for i = 1, 102 do t = { t, x = i } end"
    " t[2] = t[1] t[1][t[1]] = t return t, t[1]",
  "local c = {} local t = {} for i = 1, 9 do"
    " t[i] = setmetatable({ x = i, y = { x = i, y = i } }, c) end return t, c",
};

enum { CORPUS = sizeof corpus / sizeof corpus[0] };

#endif
