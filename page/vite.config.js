import { existsSync, readdirSync, readFileSync } from "node:fs";
import { defineConfig } from "vite";

// The licences of everything that is bundled, the WebAssembly files included, in one file.
const licences = {
  name: "licences",
  apply: "build",
  generateBundle() {
    const { packages } = JSON.parse(readFileSync("package-lock.json", "utf8"));
    const folders = Object.keys(packages).filter((folder) => folder && !packages[folder].dev && existsSync(folder));
    const sections = folders.map((folder) => {
      const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
      const text = [folder, `${folder}/codec`].filter(existsSync).flatMap((place) => readdirSync(place).filter((file) => /^licen[cs]e/i.test(file)).map((file) => `${place}/${file}`));
      return [`## ${name} ${version} (${license})`, ...text.map((file) => readFileSync(file, "utf8"))].join("\n\n");
    });
    this.emitFile({ type: "asset", fileName: "licences.md", source: `# Licences\n\n${sections.join("\n\n")}\n` });
  },
};

export default defineConfig({
  base: "./", // any folder of any web server
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 1000 },
  plugins: [licences],
  worker: { format: "es" },
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", "module", "browser", "production"] },
});
