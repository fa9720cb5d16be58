"""The paper's tables and figures as runnable plans: which nets, which recipe, which seeds, which claims."""
