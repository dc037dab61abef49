// Components are written for Svelte 5: runes everywhere, so a component of the old kind does not compile.
export default { compilerOptions: { runes: true } };
