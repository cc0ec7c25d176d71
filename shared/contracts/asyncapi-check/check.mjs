// Fails when the AsyncAPI project's parser finds an error in the document, and says how many contracts it understood.
// Warnings and hints are printed and let through: they are taste (a missing contact, an unused tag).
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const ERROR = 0;
const file = new URL(process.argv[2] ?? "../asyncapi.json", import.meta.url);
const { document, diagnostics } = await new Parser().parse(await readFile(file, "utf8"), { source: file.pathname });

for (const { severity, code, message, path } of diagnostics) {
  console.log(`${severity === ERROR ? "error" : "note"}: ${code}: ${message} (at ${path.join("/") || "the root"})`);
}
if (!document || diagnostics.some(({ severity }) => severity === ERROR)) {
  console.log("asyncapi.json is no valid AsyncAPI document.");
  process.exit(1);
}
const examples = document.components().messages().all().flatMap((message) => message.examples().all());
console.log(`asyncapi.json: ${document.operations().all().length} operations, ${document.channels().all().length} channels, ${examples.length} examples, no errors`);
