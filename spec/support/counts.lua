-- SPDX-License-Identifier: MIT
--- What the report has seen so far; its runner reads it at the end.
return { passed = 0, failed = 0, pending = 0 }
