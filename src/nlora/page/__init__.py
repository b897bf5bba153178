"""The report page: one HTML file about runs, made of what their folders and ledgers hold."""
