// Logs in by node-postgres as PGUSER; prints its version and who it is.
const { Client } = require("pg");

const session = new Client({ ssl: false, connectionTimeoutMillis: 10000 });
session
  .connect()
  .then(() => session.query("SELECT current_user AS who"))
  .then((answer) => {
    console.log(require("pg/package.json").version);
    console.log(answer.rows[0].who);
    return session.end();
  })
  .catch((error) => {
    console.error(error.message);
    process.exit(1);
  });
