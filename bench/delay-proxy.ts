import { connect, createServer, type Socket } from 'node:net';

// A TCP proxy, as a process of its own, that passes every piece on after a time: stores that are some way off.

const { ports, delayMs } = JSON.parse(process.argv[2] ?? '{}') as { ports: number[]; delayMs: number };

function pass(from: Socket, to: Socket): void {
  from.setNoDelay(true);
  // Timers of the same delay fire in the order in which they were set, so pieces keep theirs.
  from.on('data', (piece) => setTimeout(() => to.write(piece), delayMs));
  from.on('close', () => setTimeout(() => to.destroy(), delayMs));
  from.on('error', () => to.destroy());
}

const listening = ports.map(
  (port) =>
    new Promise<number>((resolve) => {
      const server = createServer((client) => {
        const store = connect(port, '127.0.0.1');
        pass(client, store);
        pass(store, client);
      });
      server.listen(0, '127.0.0.1', () => {
        const address = server.address();
        resolve(typeof address === 'object' ? (address?.port ?? 0) : 0);
      });
    }),
);
process.send?.(await Promise.all(listening));
process.once('disconnect', () => process.exit(0));
