// Logs in by postgres.js as PGUSER; prints its version and who it is.
const { readFileSync } = require("node:fs");
const { dirname, join } = require("node:path");
const postgres = require("postgres");

const sql = postgres({ ssl: false, max: 1, connect_timeout: 10 });
sql`SELECT current_user AS who`
  .then((rows) => {
    const folder = dirname(dirname(dirname(require.resolve("postgres"))));
    console.log(JSON.parse(readFileSync(join(folder, "package.json"))).version);
    console.log(rows[0].who);
    return sql.end();
  })
  .catch((error) => {
    console.error(error.message);
    process.exit(1);
  });
