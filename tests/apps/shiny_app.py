from shiny import App, render, ui

page = ui.page_fluid(
    ui.input_slider("n", "n", 0, 100, 20),
    ui.output_text_verbatim("twice"),
)


def server(input, output, session):
    @render.text
    def twice():
        return f"twice n is {input.n() * 2}"


app = App(page, server)
