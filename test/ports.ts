import { freePort } from '../src/local/ports.ts';

/** A free TCP port below those that systems give to connections (32,768 on Linux): nobody takes it before its server does. */
export const quietPort = (host?: string) => freePort(10_000 + Math.floor(Math.random() * 20_000), host);
