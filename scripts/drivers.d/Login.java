// Logs in by pgJDBC as PGUSER; prints its version and who it is.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;

public final class Login {
    public static void main(String[] none) throws Exception {
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT")
            + "/" + System.getenv("PGDATABASE") + "?sslmode=disable&loginTimeout=10";
        try (Connection session = DriverManager.getConnection(
                 url, System.getenv("PGUSER"), System.getenv("PGPASSWORD"));
             ResultSet row = session.createStatement().executeQuery("SELECT current_user")) {
            System.out.println(session.getMetaData().getDriverVersion());
            row.next();
            System.out.println(row.getString(1));
        } catch (java.sql.SQLException error) {
            Throwable cause = error.getCause() == null ? error : error.getCause();
            System.err.println(error.getMessage() + ": " + cause.getMessage());
            System.exit(1);
        }
    }
}
