#!/usr/bin/env node
import { bootstrap } from './bootstrap.js';
import { build } from './build.js';

bootstrap();
// What the first start after a change of the sources would do is no part of what is measured.
build();
const { register } = await import('tsx/esm/api');
register();
await import('../bench/main.ts');
