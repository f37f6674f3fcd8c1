import { once } from 'node:events';
import { createServer } from 'node:net';
import { codeOf } from '../runtime.ts';

/** Holds the first free TCP port of `host` from `wanted` upwards, until it is released; 0 means any. */
export async function holdPort(wanted: number, host = '127.0.0.1') {
  const server = createServer((socket) => socket.destroy());
  try {
    await once(server.listen({ port: wanted, host, exclusive: true }), 'listening');
  } catch (error) {
    if (!['EADDRINUSE', 'EACCES'].includes(codeOf(error))) throw error;
    return holdPort(wanted + 1, host);
  }
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : wanted;
  return { port, release: () => once(server.close(), 'close') };
}

/** The first free TCP port of `host` from `wanted` upwards; 0 means any. */
export async function freePort(wanted: number, host?: string): Promise<number> {
  const { port, release } = await holdPort(wanted, host);
  await release();
  return port;
}
