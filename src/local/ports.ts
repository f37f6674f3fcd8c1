import { createServer } from 'node:net';

function listen(port: number, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE' || error.code === 'EACCES') resolve(undefined);
      else reject(error);
    });
    server.listen({ port, host, exclusive: true }, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : undefined));
    });
  });
}

/** The first free TCP port of `host` from `preferred` upwards; 0 means any. */
export async function freePort(preferred: number, host = '127.0.0.1'): Promise<number> {
  for (let port = preferred; port <= Math.min(preferred + 100, 65_535); port += 1) {
    const free = await listen(port, host);
    if (free !== undefined) return free;
  }
  throw new Error(`no free port on ${host} from ${preferred} to ${preferred + 100}`);
}
