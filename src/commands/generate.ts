import { generate, type GeneratorOptions } from '../producers/generator.ts';
import type { Runtime } from '../runtime.ts';

/** Simulates the provider until asked to stop or the wanted rounds are written. */
export async function generateFiles({ config, shutdown }: Runtime, options: Omit<GeneratorOptions, 'directory'>) {
  const say = (name: string, records: number) => void process.stdout.write(`wrote ${records} records to ${name}\n`);
  await generate({ ...options, directory: config.DATA_DIR }, say, shutdown.signal);
}
