import { randomUUID } from 'node:crypto';
import { access, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa, ExecaError } from 'execa';
import { UsageError } from '../config.ts';

const HOW_TO_MEND =
  'Install a JDK 17 and Maven (Debian: apt-get install openjdk-17-jdk-headless maven; macOS: brew install openjdk@17 maven), or run everything in containers: docker compose --profile demo up';

/**
 * Runs a tool of the JDK or Maven.
 *
 * @throws UsageError, one sentence, when the tool is missing or fails; `why` begins it.
 */
export async function runTool(
  why: string,
  tool: 'java' | 'jar' | 'mvn',
  args: readonly string[],
  options: { cwd?: string; signal?: AbortSignal | undefined } = {},
): Promise<string> {
  try {
    const { all } = await execa(tool, args, {
      all: true,
      stdin: 'ignore',
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    });
    return all;
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!(error instanceof ExecaError)) throw error;
    if (error.code === 'ENOENT')
      throw new UsageError(`${why} ${tool}, which is not on the PATH. ${HOW_TO_MEND}.`);
    const reason = error.message.split('\n').find((line) => /ERROR|rror:/.test(line)) ?? error.shortMessage;
    throw new UsageError(`${why} ${tool}, which failed: ${reason.trim()}. ${HOW_TO_MEND}.`);
  }
}

/** @throws UsageError when there is no java on the PATH, or one that Cassandra 5 does not run on */
export async function checkJava(signal?: AbortSignal): Promise<void> {
  const text = await runTool('A local Cassandra needs', 'java', ['-version'], { signal });
  const major = Number(/version "(\d+)/.exec(text)?.[1]);
  // From 24 on, Java has no security manager, and Cassandra 5 does not start without one.
  if (!(major >= 17 && major < 24)) {
    const found = text.split('\n')[0] ?? '';
    throw new UsageError(
      `A local Cassandra needs Java 17 to 23, and the java on the PATH is ${found}. ${HOW_TO_MEND}.`,
    );
  }
}

export interface Artifact {
  readonly groupId: string;
  readonly artifactId: string;
  readonly version: string;
}

/**
 * A folder with the artifact's jar and those that it needs at run time, fetched from Maven's cache or Maven Central
 * the first time. The folder appears all at once, by a rename, so several processes may ask for it together.
 *
 * @param prepare works on the folder before it appears
 */
export async function fetchArtifact(
  { groupId, artifactId, version }: Artifact,
  libDirectory: string,
  options: { prepare?: (folder: string) => Promise<void>; signal?: AbortSignal | undefined } = {},
): Promise<string> {
  const folder = join(libDirectory, `${artifactId}-${version}`);
  if (await exists(folder)) return folder;

  const temporary = join(libDirectory, `.${artifactId}-${randomUUID()}`);
  await mkdir(temporary, { recursive: true });
  try {
    const pom = join(temporary, 'pom.xml');
    await writeFile(
      pom,
      `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>${artifactId}</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>${groupId}</groupId><artifactId>${artifactId}</artifactId><version>${version}</version>
    </dependency>
  </dependencies>
</project>
`,
    );
    const goal = ['dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${temporary}`];
    await runTool(
      `Fetching ${artifactId} ${version} needs`,
      'mvn',
      ['-q', '-B', '-f', pom, ...goal],
      options,
    );
    await options.prepare?.(temporary);
    await rename(temporary, folder).catch((error: unknown) => {
      if (!(error instanceof Error && 'code' in error)) throw error;
      // Another process was faster; its folder holds the same.
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return folder;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
