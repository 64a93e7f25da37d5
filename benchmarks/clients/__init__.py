"""What measures: clients that run in processes of their own and print one JSON object."""
