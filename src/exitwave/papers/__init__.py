"""One folder for each paper: its parameters, studies, figures and claims."""
