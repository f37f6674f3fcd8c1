#!/usr/bin/env -S node --max-semi-space-size=16
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bootstrap } from './bootstrap.js';
import { build } from './build.js';

bootstrap();
await import(pathToFileURL(join(build(), 'main.js')).href);
