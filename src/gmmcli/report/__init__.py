"""Many runs, compared from the results they have saved: tables, text and pages."""
