import js from '@eslint/js';
import { importX } from 'eslint-plugin-import-x';
import tseslint from 'typescript-eslint';

/** Imports point one way: main → commands → producers, processors, board, local → queues, storage → datasets. */
const forbidden = {
  datasets: ['queues', 'storage', 'processors', 'producers', 'board', 'local', 'commands'],
  storage: ['queues', 'processors', 'producers', 'board', 'local', 'commands'],
  queues: ['storage', 'processors', 'producers', 'board', 'local', 'commands'],
  processors: ['producers', 'board', 'local', 'commands'],
  producers: ['processors', 'board', 'local', 'commands'],
  board: ['processors', 'producers', 'local', 'commands'],
  local: ['queues', 'storage', 'processors', 'producers', 'board', 'commands', 'datasets'],
};
const zones = Object.entries(forbidden).flatMap(([folder, others]) => [
  { target: `./src/${folder}`, from: './src/main.ts' },
  ...others.map((other) => ({ target: `./src/${folder}`, from: `./src/${other}` })),
]);

export default tseslint.config(
  { ignores: ['dist/', '.build-*/', 'data/', '.local/', 'bench/results/', 'bench/.cache/', 'coverage/'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    plugins: { 'import-x': importX },
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      // A driver's row and a map's options are untyped by nature; the declared type at the reading names what is meant.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { varsIgnorePattern: '^_', argsIgnorePattern: '^_' }],
      '@typescript-eslint/consistent-type-imports': 'error',
      'import-x/no-restricted-paths': ['error', { zones }],
      'import-x/no-cycle': 'error',
      'no-console': 'error',
      'no-restricted-syntax': [
        'error',
        {
          selector: 'CallExpression[callee.name=/^(opendir|readdir)/] Property[key.name="recursive"]',
          message: 'Node 20 lists but 32 entries of each folder below the first one (nodejs/node#48820).',
        },
      ],
    },
  },
  { files: ['test/**', 'bench/**'], rules: { 'no-console': 'off', 'no-restricted-syntax': 'off' } },
  {
    files: ['**/*.js'],
    languageOptions: {
      globals: { process: 'readonly', console: 'readonly', URL: 'readonly', setTimeout: 'readonly', fetch: 'readonly' },
    },
  },
);
