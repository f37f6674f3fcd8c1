#!/usr/bin/env node
import { bootstrap } from './bootstrap.js';

bootstrap();
const { register } = await import('tsx/esm/api');
register();
await import('../bench/main.ts');
